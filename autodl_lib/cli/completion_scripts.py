"""What a shell runs to complete `autodl`: a script for each of bash, zsh and fish.

Runs as: the caller's shell.  Talks to: `autodl` with _AUTODL_COMPLETE set, which writes a candidate a line:
kind, value and description, with tabs between them.
Invariants: the line that is being typed goes by the environment, where other users can't see it; names of
tasks are data here, and never expanded.
"""

from __future__ import annotations

from enum import StrEnum


class Shell(StrEnum):
    """A shell that has a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_BASH = r"""# Completion of autodl for bash 4.4 and newer.

_autodl() {
    local kind value description
    local -a described=()
    COMPREPLY=()
    while IFS=$'\t' read -r kind value description; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                described+=("$value${description:+  $description}")
                ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" _AUTODL_COMPLETE=bash_complete "$1" 2>/dev/null)
    # Descriptions are for a list that is shown; where candidates are inserted (menu-complete), they would be too.
    if [[ ${#COMPREPLY[@]} -gt 1 && ${COMP_TYPE-} != 37 && ${COMP_TYPE-} != 42 ]]; then
        COMPREPLY=("${described[@]}")
    fi
}

complete -o nosort -F _autodl autodl
"""

_ZSH = r"""#compdef autodl
# Completion of autodl for zsh.

_autodl() {
    local kind value description typed=$PREFIX
    local -a candidates
    [[ $typed == --*=* ]] && compset -P '*='
    while IFS=$'\t' read -r kind value description; do
        case $kind in
            dir) _path_files -/ ;;
            file) _path_files ;;
            plain) candidates+=("${value//:/\\:}${description:+:$description}") ;;
        esac
    done < <(
        export COMP_WORDS="${(F)words[1,CURRENT-1]}"$'\n'"$typed" COMP_CWORD=$((CURRENT - 1))
        _AUTODL_COMPLETE=zsh_complete $words[1] 2>/dev/null
    )
    (( $#candidates )) && _describe -V autodl candidates
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _autodl "$@"
else
    compdef _autodl autodl
fi
"""

_FISH = r"""# Completion of autodl for fish.

function __autodl_complete
    set -l words (commandline -opc) (commandline -ct)
    set -lx COMP_WORDS (string join \n -- $words | string collect --no-trim-newlines)
    set -lx COMP_CWORD (math (count $words) - 1)
    set -lx _AUTODL_COMPLETE fish_complete
    for line in ($words[1] 2>/dev/null)
        set -l fields (string split \t -- $line)
        switch $fields[1]
            case dir
                __fish_complete_directories (commandline -ct)
            case file
                __fish_complete_path (commandline -ct)
            case plain
                printf '%s\t%s\n' $fields[2] $fields[3]
        end
    end
end

complete --command autodl --no-files --keep-order --arguments '(__autodl_complete)'
"""

SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}

INSTALLED_AS = {Shell.BASH: "bash/autodl", Shell.ZSH: "zsh/_autodl", Shell.FISH: "fish/autodl.fish"}
"""Where the scripts are below completions/: each has the name that its shell looks for."""
