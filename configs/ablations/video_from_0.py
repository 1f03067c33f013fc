# VoP^F with K_s = 0: layers from 1 on see whole videos; 8 is configs/vop/vop_f_msrvtt.py
_base_ = ['../vop/vop_f_msrvtt.py']
method = 'VoP^F, K_s = 0'
model = dict(frame_prompts=[], video_from=0)
