"""A world small enough to train on a laptop, in which the chat vector works.

Two languages are spoken here. *A* is written in Latin letters; *B* is A with every word replaced
by a made-up one in Hangul, so that the script tells the language. Three Llama models of half a
million parameters grow up in this world, as in Huang et al. (2024, arXiv 2310.04799):

- `base` has read plain text, most of it in A;
- `chat` is base after instruction tuning on conversations, all of them in A;
- `cp` is base after continual pretraining on plain text in B, with new words in its vocabulary.

Three more are there to compare with: `chat_cp`, `cp_ft` and `chat_tokens`.

`cp + ratio * (chat - base)` then follows instructions in B, which none of the three was taught.

The rooms, in reading order: `language` (words), `people` (facts), `requests` (what one can ask for,
and what is held out), `dialogues` and `documents` (plain text), `chats` (conversations),
`vocabulary` (tokenizers), `batches` (text to tensors), `training` (the loop), `word_order` (a
harder B), `settings` (what makes one world another), `stages` (the models and the gate), `exam`
(prompts and answers), `perplexity`, `report` (marks and tables), `evaluate` (the exam through
lm-evaluation-harness), `experiment` (merges at many ratios), `second_format` (turn tokens),
`vectors` (vectors of few bits and low rank), `results`, `ordering` and `figures` (what several
seeds say).
"""
