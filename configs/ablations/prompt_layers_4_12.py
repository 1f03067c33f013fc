# Prompts in layers 4 to 12 of both encoders, counted from 1 as in the paper
_base_ = ['../vop/vop_msrvtt.py']
method = 'VoP, layers 4-12'
prompts_in_all_layers = False
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(3, 12))],
             text_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(3, 12))])
