//! The senses of gpuspool: which GPUs there are and what they read.
