# The context module changes the frames' CLS tokens in place of making prompts
_base_ = ['../vop/vop_c_msrvtt.py']
method = 'VoP^C, CLS updated'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=8)],
             cls_updates=[dict(type='ContextUpdate', mixer=dict(type='BiLSTM'))])
