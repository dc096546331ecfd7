# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Completion of glixctl for bash: `source <(glixctl completion bash)`, or this file in a folder of bash-completion.

_glixctl() {
    local line=${COMP_LINE:0:COMP_POINT} rest piece prefix candidate index
    local -a words=()
    COMPREPLY=()
    # bash also parts words at = and :, which are no separators here: what the line does not part is put together again.
    for ((index = 0; index <= COMP_CWORD; index++)); do
        rest=${line#"${line%%[![:space:]]*}"}
        piece=${COMP_WORDS[index]}
        [[ $rest == "$piece"* ]] || piece=$rest # the cursor stands inside this word
        if ((${#words[@]})) && [[ $rest == "$line" ]]; then
            words[-1]+=$piece
        else
            words+=("$piece")
        fi
        line=${rest#"$piece"}
    done
    words=("${words[@]//[\"\'\\]/}")

    # readline replaces only what stands behind the last separator of its own.
    prefix=${words[-1]}
    prefix=${prefix%"${prefix##*[=:]}"}
    while IFS= read -r candidate; do
        candidate=${candidate%%$'\t'*}
        case $candidate in
            :files) compopt -o default ;;
            :folders) compopt -o dirnames ;;
            *= | config.) # a key, whose value follows
                compopt -o nospace
                COMPREPLY+=("$(printf '%q' "${candidate#"$prefix"}")")
                ;;
            *) COMPREPLY+=("$(printf '%q' "${candidate#"$prefix"}")") ;;
        esac
    done < <(command glixctl __complete "${words[@]}" 2>/dev/null)
}

complete -F _glixctl glixctl
