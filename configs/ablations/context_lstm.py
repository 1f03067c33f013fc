# VoP^C with an LSTM of one direction as context module; the BiLSTM is configs/vop/vop_c_msrvtt.py
_base_ = ['../vop/vop_c_msrvtt.py']
method = 'VoP^C, LSTM'
model = dict(frame_prompts=[dict(type='GenericPrompt', num_tokens=4),
                            dict(type='ContextPrompt', num_tokens=4, mixer=dict(type='LSTM'))])
