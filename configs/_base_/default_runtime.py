default_scope = 'vop_mm'
runner_type = 'RetrievalRunner'

default_hooks = dict(
    # fetches losses when they are logged or saved; stops at one that is infinite or NaN
    runtime_info=dict(type='BufferedRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # the last checkpoint to resume from, and the best one by the dev split
    checkpoint=dict(type='TrainableCheckpointHook', interval=1, max_keep_ckpts=2, save_best='t2v/R1'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    validate_on_resume=dict(type='ValidateOnResumeHook'))
custom_hooks = [dict(type='SetEpochHook'), dict(type='UnreadableVideoHook')]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl', timeout=1800))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_processor = dict(type='RetrievalLogProcessor', window_size=50)
log_level = 'INFO'

randomness = dict(seed=0)
load_from = None
resume = False
