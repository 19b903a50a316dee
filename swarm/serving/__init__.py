"""A language model of the swarm for programs that speak OpenAI's API.

    GET  /v1/models[/ID]         the model that is served
    POST /v1/completions         text that goes on with a prompt
    POST /v1/chat/completions    what an assistant says next; `template` says how messages become a prompt

Both answer at once or, with `"stream": true`, in events that end with `data: [DONE]`.
`system_fingerprint` and the header `X-Swarm-Cid` name the checkpoint that answered, by its CID.
Text is made in a worker process of its own, one request after the other; who waits is bounded, and told so.
While a request is answered its checkpoint stays; a newer one is loaded between two requests.
Invariant: one answer is of one checkpoint.
Source: https://platform.openai.com/docs/api-reference.
"""
