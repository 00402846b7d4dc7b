#!/bin/sh
# Writes the Python stubs of protos/ into a folder. Usage: scripts/protos.sh BIN FOLDER
set -eu
bin=$1
folder=$2
generate() {
    "$bin/python" -m grpc_tools.protoc --proto_path=protos "$@"
}
generate --python_out="$folder" --pyi_out="$folder" protos/agent_sessions/v1/*.proto
generate --grpc_python_out="$folder" --plugin="protoc-gen-mypy_grpc=$bin/protoc-gen-mypy_grpc" \
    --mypy_grpc_out=quiet:"$folder" protos/agent_sessions/v1/*_service.proto
