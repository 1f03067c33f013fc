# VoP^F with K_s = 2: layers from 3 on see whole videos; 8 is configs/vop/vop_f_msrvtt.py
_base_ = ['../vop/vop_f_msrvtt.py']
method = 'VoP^F, K_s = 2'
model = dict(video_from=2)
