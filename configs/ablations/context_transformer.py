# VoP^C with a transformer of 4 layers as context module
_base_ = ['../vop/vop_c_msrvtt.py']
method = 'VoP^C, transformer'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=4),
                            dict(type='ContextPrompt', num_tokens=4,
                                 mixer=dict(type='FrameTransformer', num_layers=4))])
