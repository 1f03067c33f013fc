# VoP^P: 4 generic tokens and 4 of the frame's position in every visual layer (VoP, section 3.3)
_base_ = './vop.py'
method = 'VoP^P'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=4), dict(type='PositionPrompt', num_tokens=4)])
