"""How the model is asked to write down what it hears; it knows no token.

The request is the one that it was taught, word for word and at the end of the system prompt. What is known of the
speech stands before it, in the request's own language: a checkpoint that was taught only the request still follows it
then. (Behind it, the same words make such a checkpoint answer what it hears instead of writing it down.)
"""

from __future__ import annotations

from voiceagent.core.dictation import Dictation

ASR_INSTRUCTIONS = (
    "请记录下你所听到的语音内容。"  #: the system prompt that the model was taught for transcription
)
LANGUAGE = "语音的语言是{name}。"  #: "the language of the speech is ..."
CONTEXT = "参考：{words}"  #: "for reference: ..."
NAMES = {
    "af": "南非荷兰语",
    "ar": "阿拉伯语",
    "bg": "保加利亚语",
    "bn": "孟加拉语",
    "ca": "加泰罗尼亚语",
    "cs": "捷克语",
    "da": "丹麦语",
    "de": "德语",
    "el": "希腊语",
    "en": "英语",
    "es": "西班牙语",
    "et": "爱沙尼亚语",
    "fa": "波斯语",
    "fi": "芬兰语",
    "fr": "法语",
    "he": "希伯来语",
    "hi": "印地语",
    "hr": "克罗地亚语",
    "hu": "匈牙利语",
    "id": "印尼语",
    "it": "意大利语",
    "ja": "日语",
    "ko": "韩语",
    "lt": "立陶宛语",
    "lv": "拉脱维亚语",
    "ms": "马来语",
    "nl": "荷兰语",
    "no": "挪威语",
    "pl": "波兰语",
    "pt": "葡萄牙语",
    "ro": "罗马尼亚语",
    "ru": "俄语",
    "sk": "斯洛伐克语",
    "sl": "斯洛文尼亚语",
    "sr": "塞尔维亚语",
    "sv": "瑞典语",
    "sw": "斯瓦希里语",
    "ta": "泰米尔语",
    "te": "泰卢固语",
    "th": "泰语",
    "tl": "他加禄语",
    "tr": "土耳其语",
    "uk": "乌克兰语",
    "ur": "乌尔都语",
    "vi": "越南语",
    "yue": "粤语",
    "zh": "中文",
}
"""The languages of `core.dictation.LANGUAGES` as the model names them."""


def dictation_instructions(how: Dictation) -> str:
    """The system prompt: what is known of the speech, then what to do with it."""
    lines = [CONTEXT.format(words=" ".join(how.prompt.split()))] if how.prompt.strip() else []
    name = NAMES.get(how.language)
    language = LANGUAGE.format(name=name) if name is not None else ""
    return "\n".join([*lines, language + ASR_INSTRUCTIONS])
