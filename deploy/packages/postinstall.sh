#!/bin/sh
set -e
# The service is not enabled: its configuration is an example. An upgrade restarts it if it runs.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart valetkey-proxy.service
fi
