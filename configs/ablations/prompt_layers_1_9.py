# Prompts in layers 1 to 9 of both encoders, counted from 1 as in the paper
_base_ = ['../vop/vop_msrvtt.py']
method = 'VoP, layers 1-9'
prompts_in_all_layers = False
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(0, 9))],
             text_prompts=[dict(type='GenericPrompt', num_tokens=8, layers=(0, 9))])
