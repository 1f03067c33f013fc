# All 8 visual tokens are position-specific
_base_ = ['../vop/vop_p_msrvtt.py']
method = 'VoP^P, 8 specific tokens'
model = dict(frame_prompts=[dict(type='PositionPrompt', num_tokens=8)])
