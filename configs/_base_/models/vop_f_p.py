# VoP^F+P: position-specific tokens in the shallow layers, whole videos with 8 generic tokens from layer K_s = 8 on
_base_ = './vop_f.py'
method = 'VoP^F+P'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=4), dict(type='PositionPrompt', num_tokens=4)])
