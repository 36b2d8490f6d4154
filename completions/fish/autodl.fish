# Completion of autodl for fish.

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
