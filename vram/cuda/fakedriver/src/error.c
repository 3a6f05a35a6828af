// Names of errors: reference section "Error Handling".
#include "fake.h"

static const struct {
	CUresult result;
	const char *name, *text;
} errors[] = {
	{0, "CUDA_SUCCESS", "no error"},
	{1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
	{2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
	{3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
	{4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
	{46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "device busy or unavailable"},
	{100, "CUDA_ERROR_NO_DEVICE", "no device"},
	{101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
	{201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
	{205, "CUDA_ERROR_MAP_FAILED", "mapping failed"},
	{214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable memory error"},
	{304, "CUDA_ERROR_OPERATING_SYSTEM", "error of the operating system"},
	{400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
	{600, "CUDA_ERROR_NOT_READY", "not ready"},
	{700, "CUDA_ERROR_ILLEGAL_ADDRESS", "illegal memory access"},
	{709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
	{712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "host memory is registered already"},
	{713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "host memory is not registered"},
	{719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
	{801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
	{999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult text(CUresult r, const char **out, bool name) {
	if (!out)
		return INVALID_VALUE;
	*out = NULL;
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (errors[i].result == r)
			*out = name ? errors[i].name : errors[i].text;
	return *out ? OK : INVALID_VALUE;
}

API CUresult cuGetErrorName(CUresult r, const char **out) { return text(r, out, true); }
API CUresult cuGetErrorString(CUresult r, const char **out) { return text(r, out, false); }
