# VoP^C: 4 generic tokens and 4 made of the video's CLS sequence in every visual layer (VoP, section 3.3)
_base_ = './vop.py'
method = 'VoP^C'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=4), dict(type='ContextPrompt', num_tokens=4)])
