"""Real `vllm serve` for the rows that speak HTTP; none of it imports torch or vLLM before it has to.

| module | concept |
|---|---|
| `words` | a stand-in tokenizer: word tN is token N |
| `seeded` | a plugin that gives vLLM a load format: random weights by seed, on the device, without a file |
| `plugins` | our plugins for an engine into whose Python nothing is installed |
| `options` | a row's command line, and the engine that it asks for |
| `command` | how an engine is started: words and variables, on a GPU and in a rehearsal |
| `facts` | the machine, with the engine's versions |
| `client` | what is said to an engine: streamed completions with times, the guard's report, dev calls |
"""
