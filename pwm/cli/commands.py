"""The commands of ``pwm``: what each is called, and the function and settings behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command: a typed config and the function that takes it.

    Attributes:
        module: where both live; imported only when the command is used.
        function, config: their names.
        summary: one line for the overview.
        example: what to type.
    """

    module: str
    function: str
    config: str
    summary: str
    example: str


COMMANDS = {
    "quickstart": Command(
        "pwm.pipelines.quickstart",
        "quickstart",
        "QuickstartConfig",
        "the whole pipeline on five tasks, in minutes on a laptop",
        "pwm quickstart out=runs/quickstart",
    ),
    "collect": Command(
        "pwm.simulation.collect",
        "collect",
        "CollectConfig",
        "run behaviours in the simulators and store the episodes",
        "pwm collect suite=mt30 episodes=200 out=runs/mt30/data",
    ),
    "convert": Command(
        "pwm.interop.convert",
        "convert",
        "ConvertConfig",
        "published data files into an episode store, or a store into such files",
        "pwm convert source=downloads/mt80 suite=mt80 tasks=walker-run out=data/walker-run",
    ),
    "sample": Command(
        "pwm.data.pack_sample",
        "sample",
        "SampleConfig",
        "pack a few MB of a store's episodes, enough to extract policies from",
        "pwm sample data=runs/mt30/data out=samples/mt30",
    ),
    "import": Command(
        "pwm.interop.import_checkpoint",
        "import_checkpoint",
        "ImportConfig",
        "a published TD-MPC2 or PWM world model into one that pwm opens",
        "pwm import checkpoint=downloads/mt80-48M.pt suite=mt80 out=models/mt80-48M",
    ),
    "export": Command(
        "pwm.interop.export_checkpoint",
        "export_checkpoint",
        "ExportConfig",
        "a world model into a checkpoint file for TD-MPC2's own code",
        "pwm export checkpoint=runs/mt30/world_model out=mt30.pt",
    ),
    "pretrain": Command(
        "pwm.pretraining.pretrain",
        "pretrain",
        "PretrainConfig",
        "train one world model on all tasks of a store",
        "pwm pretrain data=runs/mt30/data model=5M out=runs/mt30/world_model",
    ),
    "analyze": Command(
        "pwm.analysis.analyze",
        "analyze",
        "AnalyzeConfig",
        "how the tasks of a world model relate, which need what, and groups of them",
        "pwm analyze checkpoint=runs/mt30/world_model data=runs/mt30/data out=runs/mt30/analysis",
    ),
    "adapt": Command(
        "pwm.adaptation.adapt",
        "adapt",
        "AdaptConfig",
        "bring a new task or robot into a world model",
        "pwm adapt task=mine.yaml data=runs/mine/data checkpoint=checkpoints/mt30/world_model "
        "out=runs/mine/world_model",
    ),
    "extract": Command(
        "pwm.evaluation.played_choice",
        "extract",
        "ExtractConfig",
        "learn a policy per task by first-order gradients through the world model",
        "pwm extract tasks=walker-run checkpoint=runs/mt30/world_model data=runs/mt30/data "
        "out=runs/mt30/policies",
    ),
    "estimate": Command(
        "pwm.extraction.estimate",
        "estimate",
        "EstimateConfig",
        "what policies are expected to score, from recorded data alone",
        "pwm estimate policies=runs/mt30/policies data=runs/mt30/data "
        "checkpoint=runs/mt30/world_model out=runs/mt30/estimates",
    ),
    "evaluate": Command(
        "pwm.evaluation.evaluate",
        "evaluate",
        "EvaluateConfig",
        "score policies and baselines in the simulators",
        "pwm evaluate policy=runs/mt30/policies episodes=10 out=runs/mt30",
    ),
    "watch": Command(
        "pwm.evaluation.watch",
        "watch",
        "WatchConfig",
        "a policy in the simulator, beside what the world model predicts that it will do",
        "pwm watch policy=runs/mt30/policies task=walker-run",
    ),
    "deploy": Command(
        "pwm.deployment.deploy",
        "deploy",
        "DeployConfig",
        "a policy or a world model into files that run without pwm: ONNX, torch, NumPy",
        "pwm deploy policy=runs/mt30/policies task=walker-run to=onnx out=deployed",
    ),
    "serve": Command(
        "pwm.serving.server",
        "serve",
        "ServeConfig",
        "actions of policies to many clients, over TCP",
        "pwm serve policy=runs/mt30/policies",
    ),
    "push": Command(
        "pwm.hub.push",
        "push",
        "PushConfig",
        "policies, a world model or a bundle to the Hugging Face hub, with a model card",
        "pwm push source=checkpoints/mt30 repo=someone/mt30",
    ),
    "pull": Command(
        "pwm.hub.pull",
        "pull",
        "PullConfig",
        "what was pushed to the hub, verified, into a directory",
        "pwm pull repo=someone/mt30 out=downloads/mt30",
    ),
    "grow": Command(
        "pwm.pipelines.grow",
        "grow",
        "GrowConfig",
        "data, world model and policies together, in rounds, from the simulators alone",
        "pwm grow suite=quick rounds=5 out=runs/grow",
    ),
    "report": Command(
        "pwm.reporting.report",
        "report_command",
        "ReportConfig",
        "make one HTML page of a run",
        "pwm report run=runs/mt30",
    ),
    "status": Command(
        "pwm.pipelines.job_status",
        "status",
        "StatusConfig",
        "how far the jobs are that -m made of tasks",
        "pwm status run=runs/mt30/policies",
    ),
    "gather": Command(
        "pwm.pipelines.gather_jobs",
        "gather",
        "GatherConfig",
        "one store, directory of policies or table out of the parts that jobs made",
        "pwm gather run=runs/mt30/policies",
    ),
    "compare": Command(
        "pwm.locomotion.compare",
        "compare",
        "CompareConfig",
        "PWM, SHAC, PPO and SAC on the same simulators of locomotion, by steps and by time",
        "pwm compare tasks=pendulum compare=small steps=20000 seeds=3 out=runs/pendulum",
    ),
    "landscape": Command(
        "pwm.locomotion.landscape",
        "landscape",
        "LandscapeConfig",
        "returns and gradients through a simulator and a world model, by horizon",
        "pwm landscape task=double_pendulum out=runs/landscape",
    ),
    "doctor": Command(
        "pwm.doctor.doctor",
        "doctor",
        "DoctorConfig",
        "what this machine and installation can do, and what will be slow",
        "pwm doctor",
    ),
}
