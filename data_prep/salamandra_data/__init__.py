"""Data preparation: text to tokenizer, indexed shards and a blend plan. Never imports torch.

The rooms, in the order data passes through them:

* ``readers``      documents out of JSON lines, Parquet and plain text
* ``tokenizer``    SentencePiece training with the Salamandra recipe
* ``tokenization`` documents to globally shuffled indexed shards
* ``indexed``      the shard format: Megatron's ``.bin`` and ``.idx`` with a ``.json`` manifest
* ``blend_plan``   language factors and shards to exact integer weights
* ``verification`` and ``inspection`` of everything written above
"""
