# VoP: 8 learnable tokens in every layer of both encoders of a frozen CLIP (VoP, section 3.2)
method = 'VoP'
# training is refused where a layer of an encoder with prompts has none; a method that means it so says False
prompts_in_all_layers = True
model = dict(
    type='TextVideoRetriever',
    backbone=dict(type='OpenCLIP', arch='ViT-B-32-quickgelu', weights='openai'),
    frame_prompts=[dict(type='GenericPrompt', num_tokens=8)],
    text_prompts=[dict(type='GenericPrompt', num_tokens=8)],
    tuning=dict(type='PromptTuning'),
    head=dict(type='MeanPoolSimilarity'),
    loss=dict(type='SymmetricContrastiveLoss', same_video='mask'),
    data_preprocessor=dict(type='VideoTextPreprocessor', short_videos='repeat'))
