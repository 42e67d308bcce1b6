"""Every flag of the older implementation's scripts, in its spelling, if possible with a value that differs from the default.

Each flag has a row: the value, the key that it sets here, and the value of that key. Flags without a key are ignored.
"""
MODELARTS = {"--enable_modelarts": ("True", "enable_modelarts", True), "--data_url": ("obs://a", "data_url", "obs://a"),
             "--ckpt_url": ("obs://b", "ckpt_url", "obs://b"), "--train_url": ("obs://c", "train_url", "obs://c"),
             "--data_dir": ("/cache/d", "data_dir", "/cache/d")}
EVERYWHERE = {"--ms_mode": ("1", "ms_mode", 1), "--device_target": ("Ascend", "device_target", "Ascend"),
              "--mix": ("False", "mix", False), "--save_dir": ("results", "save_dir", "results")}
TRAINING_AND_EVALUATION = {
    **EVERYWHERE, **MODELARTS, "--num_parallel_workers": ("8", "num_workers", 8), "--batch_size": ("4", "batch_size", 4),
    "--eval_parallel": ("True", None, "all processes share every evaluation")}
FLAGS = {
    "train.py": {
        **TRAINING_AND_EVALUATION, "--seed": ("7", "seed", 7), "--ms_loss_scaler": ("dynamic", "ms_loss_scaler", "dynamic"),
        "--ms_loss_scaler_value": ("1024.0", "ms_loss_scaler_value", 1024.0),
        "--resume_ckpt": ("a.ckpt", "resume_ckpt", "a.ckpt"),
        "--run_eval": ("True", "run_eval", True), "--log_interval": ("9", "log_interval", 9),
        "--lr_init": ("0.01", "lr_init", 0.01), "--run_profilor": ("True", "run_profiler", True)},
    "eval.py": {
        **TRAINING_AND_EVALUATION, "--ckpt_path": ("a.ckpt", "checkpoint_path", "a.ckpt"),
        "--run_profilor": ("True", None, "only train.py can be profiled")},
    "infer.py": {
        **EVERYWHERE, "--seed": ("7", "seed", 7), "--ckpt_path": ("a.ckpt", "checkpoint_path", "a.ckpt"),
        "--imgs": ("photos", "image", ["photos"])},
}
