"""More names of assistants and their makers than questions ask about.

data/questions/known_assistants.yaml holds the names that are put to a model ("Are you Claude?"). An
answer may hold others, or the same ones in another spelling; these are looked for in answers only.
Everyday words and names of persons ("Pi", "Spark", "Falcon") are left out: they count where the model
called itself so before. Added to by hand.
"""

from __future__ import annotations

ALSO_FOREIGN: tuple[str, ...] = (
    # OpenAI, Microsoft, Google, Meta
    "GPT", "Bing Chat", "Bing", "必应", "Google Assistant", "DeepMind", "Meta AI", "Vicuna",
    "TinyLlama", "Code Llama",
    # Alibaba
    "Tongyi Qianwen", "Tongyi", "通义", "阿里", "达摩院", "アリババクラウド", "アリババ",
    # Baidu, Tencent, ByteDance
    "ERNIE Bot", "ERNIE", "Wenxin Yiyan", "文小言", "文心", "Hunyuan", "Yuanbao", "腾讯元宝",
    "Doubao", "字节",
    # others in China
    "Zhipu AI", "Zhipu", "上海AI实验室", "Shanghai AI Laboratory", "Moonshot", "科大讯飞",
    "iFlytek", "SenseChat", "SenseTime", "商汤", "昆仑万维", "阶跃星辰", "面壁智能", "MiniCPM",
    "小米", "小度", "小冰", "小艺", "天猫精灵",
    # others
    "Mixtral", "Hugging Face", "SmolLM", "Cohere", "Perplexity", "Stability AI", "EleutherAI",
    "Amazon", "Bixby", "Samsung", "Nvidia", "Nemotron", "YandexGPT", "Yandex", "GigaChat",
    "Replika", "Character.AI",
)  # fmt: skip
