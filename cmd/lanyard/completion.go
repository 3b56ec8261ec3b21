package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

func (e env) completion() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a shell script that completes commands, flags, networks and containers",
		UsageText: "lanyard completion bash|zsh|fish",
		Description: `Examples:
  source <(lanyard completion bash)
  lanyard completion bash > /etc/bash_completion.d/lanyard
  lanyard completion zsh > /usr/local/share/zsh/site-functions/_lanyard
  lanyard completion fish > ~/.config/fish/completions/lanyard.fish`,
		Action: func(c *cli.Context) error {
			if err := checkArgs(1, c, "SHELL"); err != nil {
				return err
			}
			script, ok := completionScripts[c.Args().First()]
			if !ok {
				return usagef("shell %q is not supported: use bash, zsh or fish", c.Args().First())
			}
			_, err := io.WriteString(e.stdout, script)
			return err
		},
	}
}

// completeVerb is the hidden command that the scripts call with the words up to the
// cursor.
const completeVerb = "__complete"

var completionScripts = map[string]string{
	// bash splits words at '=' and ':'; complete() expects that.
	"bash": `# bash completion for lanyard
_lanyard() {
	local IFS=$'\n'
	COMPREPLY=($(lanyard __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
	[[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _lanyard lanyard
`,
	"zsh": `#compdef lanyard
_lanyard() {
	local -a found
	found=("${(@f)$(lanyard __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	found=("${(@)found:#}")
	if (( $#found )); then
		compadd -a found
	else
		_files
	fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
	_lanyard "$@"
else
	compdef _lanyard lanyard
fi
`,
	// The last word may be empty, and then must be passed all the same.
	"fish": `# fish completion for lanyard
function __lanyard
	set -l words (commandline -opc)
	lanyard __complete $words[2..] (commandline -ct) 2>/dev/null
end
complete -c lanyard -f -a '(__lanyard)'
complete -c lanyard -F -n '__fish_seen_argument -l out -l from'
`,
}
