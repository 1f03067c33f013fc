# CLIP as it comes, its frame embeddings averaged
method = 'Zero-shot'
model = dict(
    type='TextVideoRetriever',
    backbone=dict(type='OpenCLIP', arch='ViT-B-32-quickgelu', weights='openai'),
    tuning=dict(type='ZeroShot'),
    head=dict(type='MeanPoolSimilarity'),
    data_preprocessor=dict(type='VideoTextPreprocessor', short_videos='repeat'))
