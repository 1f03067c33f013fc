# Prompts in layers 10 to 12 of both encoders, counted from 1 as in the paper
_base_ = ['../vop/vop_msrvtt.py']
method = 'VoP, layers 10-12'
prompts_in_all_layers = False
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(9, 12))],
             text_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(9, 12))])
