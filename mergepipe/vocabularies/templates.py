"""Chat templates that a recipe can name, written from the formats that models document.

They say what each model family's own template says of a plain conversation; where mergekit 0.1.5's
texts of the same names let line ends and indentation through into the prompt (llama3, exaone),
these do not.
"""

from collections import Counter
from collections.abc import Sequence

from mergepipe.errors import MergeInputError
from mergepipe.names import quoted

AUTO = "auto"
# What any Jinja text that says something has in it, and no name of a template.
_JINJA = ("{{", "{%")

# OpenAI's ChatML.
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Meta, "Llama 3 model card and prompt formats".
_LLAMA3 = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)
# Stanford Alpaca; a system message stands first, user_context is its "Input".
_ALPACA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ message['content'] | trim + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + message['content'] | trim + '\\n\\n' }}"
    "{% elif message['role'] == 'user_context' %}"
    "{{ '### Input:\\n' + message['content'] | trim + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] | trim + '\\n\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
# Mistral 7B Instruct v0.1: turns alternate, a system message opens the first.
_MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set opening = messages[0]['content'] + '\\n\\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set opening = '' %}{% set turns = messages %}{% endif %}"
    "{{ bos_token }}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant have to take turns, the user first') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ ' [INST] ' + (opening if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
# LG AI Research, EXAONE 3.0: a system turn is always there, user turns do not end.
_EXAONE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '[|system|][|endofturn|]\\n' }}"
    "{% endif %}"
    "{{ '[|' + message['role'] + '|]' + message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n' }}{% else %}{{ '[|endofturn|]\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
)
TEMPLATES = {
    "alpaca": _ALPACA,
    "chatml": _CHATML,
    "exaone": _EXAONE,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
}


def chat_template(choice: str | None, models: Sequence[str | None]) -> str | None:
    """The template that a recipe asks for; None leaves the tokenizer's own.

    choice  a name, Jinja text, or `auto`: what most models have, the first of equals
    models  the models' own templates, in their order

    Raises MergeInputError for text that is neither.
    """
    if not choice:
        return None
    if choice in TEMPLATES:
        return TEMPLATES[choice]
    if choice == AUTO:
        counted = Counter(template for template in models if template is not None)
        # The most frequent; of equals the one met first.
        return counted.most_common(1)[0][0] if counted else None
    if any(mark in choice for mark in _JINJA):
        return choice
    raise MergeInputError(
        f"no chat template is called {quoted(choice)}",
        f"give Jinja text, {AUTO}, or one of {', '.join(TEMPLATES)}",
    )
