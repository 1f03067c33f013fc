# 2 of the 8 visual tokens are position-specific; none is configs/vop/vop_msrvtt.py, 4 are vop_p_msrvtt.py
_base_ = ['../vop/vop_p_msrvtt.py']
method = 'VoP^P, 2 specific tokens'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=6), dict(type='PositionPrompt', num_tokens=2)])
