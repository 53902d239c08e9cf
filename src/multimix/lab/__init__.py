"""Everything that runs experiments, behind the command ``multimix``: pip installs it with the extra ``lab``."""
