# VoP^F with K_s = 12; 8 is configs/vop/vop_f_msrvtt.py, 12 is VoP
_base_ = ['../vop/vop_f_msrvtt.py']
method = 'VoP^F, K_s = 12'
model = dict(video_prompts=[], video_from=12)
