"""The code of the three documents that Sluice was asked for by, each line as it stands there but for the import.

What the documents leave out (rows, mostly) is what a test gives.
"""

UPLOAD = """
from sluice.compat import DatasetHub

hub = DatasetHub()
dataset_id = hub.upload(
    name="medical_chest_xray_report",
    path="./data/xray_reports.jsonl",
    task_type="vqa",
    modalities=["image", "text"],
    description="胸部X光影像与诊断报告配对数据",
)
"""

VQA = """
from sluice.compat import MultiModalTrainer, MultiModalConfig

config = MultiModalConfig(
    model_name="qwen-vl-7b",
    train_dataset="custom_vqa_dataset",
    task="vqa",
    max_epochs=3,
    per_device_train_batch_size=8,
)
trainer = MultiModalTrainer(config)
trainer.train()
"""

LOCAL = """
from sluice.compat import prepare_model_and_tokenizer

model, tokenizer = prepare_model_and_tokenizer('qwen/Qwen-7B')
"""

LORA = """
from sluice.compat import Swift, LoRAConfig

lora_config = LoRAConfig(
    r=8,
    target_modules=['q_proj', 'v_proj'],
    lora_alpha=32,
    lora_dropout=0.1,
)
model = Swift.prepare_model(model, lora_config)
"""

#: The third document names no import.
DPO = """
from sluice.compat import SwiftTrainer, TrainingArguments

args = TrainingArguments(
    task_type="dpo",
    model_name_or_path="Qwen/Qwen3-7B",
    dataset="dpo_zh_en_mixed",
    per_device_train_batch_size=4,
    output_dir="./output/dpo-qwen3",
)
trainer = SwiftTrainer(args, train_dataset=train_data)
trainer.train()
"""

EMBEDDING = """
from sluice.compat import SwiftTrainer, TrainingArguments

args = TrainingArguments(
    task_type="embedding",
    model_name_or_path="BAAI/bge-small-zh-v1.5",
    pooling_method="mean",
    normalize_embeddings=True,
    output_dir="./output/bge-finetuned",
)
trainer = SwiftTrainer(args, train_dataset=train_data)
trainer.train()
trainer.save_model(format="faiss")
"""

CLASSIFICATION = """
from sluice.compat import SwiftTrainer, TrainingArguments

args = TrainingArguments(
    task_type="sequence-classification",
    num_labels=5,
    label_names=["科技", "体育", "娱乐", "财经", "军事"],
    model_name_or_path="Qwen/Qwen3-1B",
    use_lora=True,
    lora_rank=64,
    max_length=1024,
    output_dir="./output/news-classifier",
)
trainer = SwiftTrainer(args, train_dataset=train_data, eval_dataset=eval_data)
trainer.train()
"""
