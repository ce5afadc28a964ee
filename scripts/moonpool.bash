# bash completion for moonpool. The commands and options come from the program's own help, so they
# are never out of date.
_moonpool() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} words
    COMPREPLY=()
    if ((COMP_CWORD == 1)) || [[ $COMP_CWORD == 2 && $prev == help ]]; then
        words=$("$program" help 2>/dev/null | sed -n 's/^   \([a-z][a-z]*\) .*/\1/p')
        [[ $prev == help ]] && words+=" licenses" || words+=" --help --version"
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    case $prev in
    --provider)
        mapfile -t COMPREPLY < <(compgen -W "openai azure tei cohere voyage jina baseten bayt" -- "$cur")
        return
        ;;
    --api-key-env)
        mapfile -t COMPREPLY < <(compgen -e -- "$cur")
        return
        ;;
    esac
    if [[ $cur == -* ]]; then
        words=$("$program" help "${COMP_WORDS[1]}" 2>/dev/null | grep -o -e '--[a-z0-9][a-z0-9-]*')
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _moonpool moonpool
