# VoP^F: from layer K_s = 8 on, the visual layers see whole videos (VoP, section 3.3)
_base_ = './vop.py'
method = 'VoP^F'
model = dict(video_prompts=[dict(type='GenericPrompt', num_tokens=8)], video_from=8)
