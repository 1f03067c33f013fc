# VoP^F with K_s = 6: layers from 7 on see whole videos; 8 is configs/vop/vop_f_msrvtt.py
_base_ = ['../vop/vop_f_msrvtt.py']
method = 'VoP^F, K_s = 6'
model = dict(video_from=6)
