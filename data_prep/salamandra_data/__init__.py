"""Data preparation: text to tokenizer, indexed shards and a blend plan. Never imports torch.

The rooms, in the order data passes through them:

* ``readers``      documents out of JSON lines, Parquet and plain text
* ``tokenizer``    SentencePiece training with the Salamandra recipe
* ``tokenization`` documents to globally shuffled indexed shards
* ``shards``       Megatron's ``.bin`` and ``.idx`` with a ``.json`` manifest: read, written, checked, cut and joined
* ``blend_plan``   language factors and shards to exact integer weights
"""
