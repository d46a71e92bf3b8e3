"""Several processes that train one model: how they meet, what each holds, and how it is put together again."""
