# VoP^F with K_s = 10: layers from 11 on see whole videos; 8 is configs/vop/vop_f_msrvtt.py
_base_ = ['../vop/vop_f_msrvtt.py']
method = 'VoP^F, K_s = 10'
model = dict(video_from=10)
