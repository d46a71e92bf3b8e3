"""The dataset service: takes files, checks their rows, keeps versions, and reads them out again. Trains nothing."""
