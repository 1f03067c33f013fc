_base_ = ['../../../configs/vop/vop_demo.py']
custom_imports = dict(imports=['projects.example_project.bank_prompt'], allow_failed_imports=False)

method = 'VoP with a bank'
model = dict(
    frame_prompts=[dict(type='GenericPrompt', num_tokens=4),
                   dict(type='BankPrompt', num_tokens=4, bank_size=8)])
