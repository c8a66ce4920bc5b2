//go:build tools

// Package tools makes `go mod tidy` keep the command that the test cluster builds.
package tools

import _ "go.etcd.io/etcd/server/v3"
