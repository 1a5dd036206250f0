#!/bin/sh
set -e
# dpkg passes remove or upgrade, rpm the number of versions that remain.
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now valetkey-proxy.service valetkey-proxy.socket
	fi
	;;
esac
