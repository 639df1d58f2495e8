"""Chats as the model was taught to read them, by its own template."""

from collections.abc import Mapping, Sequence

from sememe.errors import UsageError
from sememe.models.language_model import LanguageModel


def chat_ids(model: LanguageModel, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the tokens of a chat up to where the model answers.

    ``messages`` have a ``role`` and a ``content`` each. Control tokens come from the template
    alone. Raises UsageError for a model without a template, for messages that the template does
    not take, and for one that spells a control token, which could speak for somebody else.
    """
    tokenizer = model.tokenizer
    if tokenizer.chat_template is None:
        raise UsageError(f"{model.name} has no chat template: complete a text instead")
    spelled = [tokenizer.bytes_of[token].decode() for token in tokenizer.special]
    for number, message in enumerate(messages):
        if found := [token for token in spelled if token and token in message["content"]]:
            raise UsageError(f"message {number} spells the control token {found[0]}: leave it out")
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template(
            conversations=[list(messages)],
            chat_template=tokenizer.chat_template,
            add_generation_prompt=True,
            bos_token=None if tokenizer.bos is None else tokenizer.bytes_of[tokenizer.bos].decode(),
        )
    except TemplateError as error:
        raise UsageError(f"{model.name} cannot read such a chat: {error}") from None
    ids = tokenizer.encode_marked(rendered[0])
    if not ids:
        raise UsageError("messages has no text; expected at least one message")
    return ids
