# Prompts in layers 1 to 3 of both encoders, counted from 1 as in the paper
_base_ = ['../vop/vop_msrvtt.py']
method = 'VoP, layers 1-3'
prompts_in_all_layers = False
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(0, 3))],
             text_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(0, 3))])
