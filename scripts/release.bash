# To be sourced. Makes every module of the workspace, as committed at HEAD, v0.1.0 in a file-system module proxy, and gives
#
#   $work, $module, $version    a temporary folder that is removed at exit, the path of the root module, v0.1.0
#   $modules                    the paths of all modules
#   made PATH                   the folder with the files of that module's zip
#   consumer NAME               makes an empty module with an empty module cache of its own, and goes there
#
# The go command makes the zips itself, from the tags of a repository, so the rules are its own: a zip has no nested module
# in it, and a module without a LICENSE gets that of the root. The checkout is only read.
set -euo pipefail

module=github.com/valetkey/valetkey
version=v0.1.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Ours first; then the downloads of the ordinary module cache, to spare the network; then what everybody asks.
proxies="file://$work/made/cache/download,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)"
# The ordinary cache is only read: what we make here must not stay in it.
export GOPROXY=$proxies GOMODCACHE=$work/caches/tree
# The checksum database vouches for all modules but ours. Module caches can be removed, and builds from them be reused.
export GONOSUMDB="$module,$module/*" GOFLAGS='-modcacherw -trimpath' GOWORK=off
# Who asks for the public repository gets the one made here.
n=${GIT_CONFIG_COUNT:-0}
export GIT_CONFIG_COUNT=$((n + 1)) "GIT_CONFIG_KEY_$n=url.$work/tree.insteadOf" "GIT_CONFIG_VALUE_$n=https://$module"
export GIT_{AUTHOR,COMMITTER}_NAME=rehearsal GIT_{AUTHOR,COMMITTER}_EMAIL=rehearsal@example.com

# quiet runs a command and shows what it says only if it comes to nothing.
quiet() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }; }

made() { echo "$work/made/$1@$version"; }

consumer() {
	export GOMODCACHE=$work/caches/$1
	mkdir -p "$work/consumers/$1"
	cd "$work/consumers/$1"
	quiet go mod init "example.com/$1"
}

# siblings prints the modules of ours that the module in the folder $1 replaces: those that it needs.
siblings() { sed -nE "s#^(replace)?[[:space:]]*($module[^ ]*) => .*#\2#p" "$1/go.mod"; }

# release makes the module in the folder $1 of the tree, . or ./name, whose siblings are made.
release() {
	local path=$module${1#.} tag=${1#.}/$version
	tag=${tag#/}
	(
		cd "$1"
		siblings . | while read -r sibling; do
			go mod edit -dropreplace="$sibling" -require="$sibling@$version"
		done
		quiet go mod tidy
		git add . && git commit -q --allow-empty -m "Release $path $version" && git tag "$tag"
	)
	GOPROXY=direct GOMODCACHE=$work/made quiet go mod download "$path@$version"
}

mkdir "$work/tree"
git -C "$root" archive HEAD | tar -x -C "$work/tree"
cd "$work/tree"
git init -q
git config commit.gpgsign false
git config tag.gpgsign false
# A module of tests alone is nobody's to import.
modules=$(GOWORK=$PWD/go.work go list -m | grep -v '/e2e$')
# Each module is made after those that it needs.
pending=$modules
while [ -n "$pending" ]; do
	later=
	for path in $pending; do
		needs=$(siblings ".${path#"$module"}")
		if [ -n "$needs" ] && grep -qxF "$needs" <<<"$pending"; then later+=$path$'\n'; else release ".${path#"$module"}"; fi
	done
	[ "${later%$'\n'}" != "$pending" ] || { echo "modules that need each other: $pending" >&2; exit 1; }
	pending=${later%$'\n'}
done
