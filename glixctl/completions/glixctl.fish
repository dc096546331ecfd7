# SPDX-License-Identifier: GPL-3.0-or-later
# Completion of glixctl for fish: `glixctl completion fish | source`, or this file as completions/glixctl.fish.

function __glixctl_complete
    set -l current (commandline --current-token)
    set -l before (commandline --tokenize --cut-at-cursor --current-process)
    for line in (command glixctl __complete $before "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path "$current"
            case :folders
                __fish_complete_directories "$current" ''
            case '*'
                echo $line
        end
    end
end

complete --command glixctl --no-files --arguments '(__glixctl_complete)'
