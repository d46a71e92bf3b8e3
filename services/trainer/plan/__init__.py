"""What a training job will take, from its spec and its model's config.json alone; knows neither torch nor a service."""
