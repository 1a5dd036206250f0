# Source this file. It publishes every module of the workspace at HEAD in a file-system module proxy, as $RELEASE (v0.1.0 by default), and defines:
#
#   $work, $module, $version    a temporary folder that is removed at exit, the path of the root module, $RELEASE
#   $work/tree                  a clone of the repository with the commits and tags
#   $modules                    the paths of all modules
#   made PATH                   the folder with the files of that module's zip
#   consumer NAME               makes an empty module with an empty module cache of its own, and goes there
#
# The go command creates the zips from the tags of a repository, so its own rules apply: a zip contains no nested module, and a
# module without a LICENSE gets that of the root. The checkout is not modified.
set -euo pipefail

module=github.com/valetkey/valetkey
version=${RELEASE:-v0.1.0}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The proxy made here first; then the downloads in the ordinary module cache, to save network traffic; then the configured proxies.
proxies="file://$work/made/cache/download,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)"
# The ordinary cache is only read: the modules made here must not remain in it.
export GOPROXY=$proxies GOMODCACHE=$work/caches/tree
# The checksum database verifies all other modules. Module caches can be removed, and builds from them can be reused.
export GONOSUMDB="$module,$module/*" GOFLAGS='-modcacherw -trimpath' GOWORK=off
# Requests for the public repository are redirected to the one made here.
n=${GIT_CONFIG_COUNT:-0}
export GIT_CONFIG_COUNT=$((n + 1)) "GIT_CONFIG_KEY_$n=url.$work/tree.insteadOf" "GIT_CONFIG_VALUE_$n=https://$module"
# A rehearsal needs no identity.
[ -n "${RELEASE:-}" ] || export GIT_{AUTHOR,COMMITTER}_NAME=rehearsal GIT_{AUTHOR,COMMITTER}_EMAIL=rehearsal@example.com

# quiet runs a command and shows its output only if it fails.
quiet() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }; }

made() { echo "$work/made/$1@$version"; }

consumer() {
	export GOMODCACHE=$work/caches/$1
	mkdir -p "$work/consumers/$1"
	cd "$work/consumers/$1"
	quiet go mod init "example.com/$1"
}

# siblings prints the modules of this workspace that the module in the folder $1 replaces, which are those that it needs.
siblings() { sed -nE "s#^(replace)?[[:space:]]*($module[^ ]*) => .*#\2#p" "$1/go.mod"; }

# release publishes the module in the folder $1 of the tree, . or ./name. Its siblings must already be published.
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

# With its history, so that the commits can be fetched into the repository. Its tags are made here.
git clone --quiet --no-tags --no-checkout "$root" "$work/tree"
cd "$work/tree"
git checkout --quiet -B release "$(git -C "$root" rev-parse HEAD)"
if [ -n "${RELEASE:-}" ]; then
	git config user.name "$(git -C "$root" config user.name)"
	git config user.email "$(git -C "$root" config user.email)"
fi
git config commit.gpgsign false
git config tag.gpgsign false
# No other module imports tests and examples.
modules=$(GOWORK=$PWD/go.work go list -m | grep -v -e '/e2e$' -e '/examples/')
# Each module is published after those that it needs.
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
