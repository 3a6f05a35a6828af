/*
 * cuda_functions.h: every function of the driver that is called, once. Each line is
 *
 *     CU_FUNCTION(name, symbols, parameters, arguments)
 *
 * with the name in C, the symbol that libcuda.so.1 exports for the ABI of today, the
 * parameters as declared and the same as passed on. Whoever includes this file says
 * what becomes of a line: cuda.h makes declarations of them, driver.c the table, the
 * look-ups and the trampolines.
 *
 * The symbol differs from the name where the ABI once changed: the name without a
 * version is then that of 32-bit sizes and addresses, or of another meaning, and is
 * kept by the driver for the programs of those days. Where two symbols stand there,
 * apart by a space, the first is taken if the driver has it, else the second; both
 * take the same parameters. A name without a version stands where the newer version
 * takes others (cuCtxCreate_v4, cuMemAdvise_v2, cuMemPrefetchAsync_v2,
 * cuGraphAddKernelNode_v2, cuGraphAddDependencies_v2, cuGraphGetEdges_v2): those are
 * what CUDA 12 and 13 make of the plain names for programs compiled with their header.
 *
 * CU_REQUIRED is the same, and marks what a tier cannot do without: a driver that lacks
 * one of these is refused. A call of any other that is lacking returns
 * CUDA_ERROR_NOT_FOUND.
 *
 * cuInit is not here: it is the one function whose trampoline does something else.
 */

/* Error handling; version management; device management. */
CU_FUNCTION(cuGetErrorName, "cuGetErrorName", (CUresult error, const char **text), (error, text))
CU_FUNCTION(cuGetErrorString, "cuGetErrorString", (CUresult error, const char **text), (error, text))
CU_REQUIRED(cuDriverGetVersion, "cuDriverGetVersion", (int *version), (version))
CU_REQUIRED(cuDeviceGet, "cuDeviceGet", (CUdevice *device, int ordinal), (device, ordinal))
CU_REQUIRED(cuDeviceGetCount, "cuDeviceGetCount", (int *count), (count))
CU_REQUIRED(cuDeviceGetName, "cuDeviceGetName", (char *name, int length, CUdevice device), (name, length, device))
CU_FUNCTION(cuDeviceGetUuid, "cuDeviceGetUuid_v2 cuDeviceGetUuid", (CUuuid *uuid, CUdevice device), (uuid, device))
CU_FUNCTION(cuDeviceGetPCIBusId, "cuDeviceGetPCIBusId", (char *id, int length, CUdevice device), (id, length, device))
CU_REQUIRED(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t *bytes, CUdevice device), (bytes, device))
CU_REQUIRED(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *value, CUdevice_attribute attribute, CUdevice device), (value, attribute, device))

/* Primary context management. */
CU_REQUIRED(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext *context, CUdevice device), (context, device))
CU_REQUIRED(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice device), (device))
CU_FUNCTION(cuDevicePrimaryCtxReset, "cuDevicePrimaryCtxReset_v2", (CUdevice device), (device))
CU_FUNCTION(cuDevicePrimaryCtxSetFlags, "cuDevicePrimaryCtxSetFlags_v2", (CUdevice device, unsigned int flags), (device, flags))
CU_FUNCTION(cuDevicePrimaryCtxGetState, "cuDevicePrimaryCtxGetState", (CUdevice device, unsigned int *flags, int *active), (device, flags, active))

/* Context management. */
CU_FUNCTION(cuCtxCreate, "cuCtxCreate_v2", (CUcontext *context, unsigned int flags, CUdevice device), (context, flags, device))
CU_FUNCTION(cuCtxDestroy, "cuCtxDestroy_v2", (CUcontext context), (context))
CU_FUNCTION(cuCtxPushCurrent, "cuCtxPushCurrent_v2", (CUcontext context), (context))
CU_FUNCTION(cuCtxPopCurrent, "cuCtxPopCurrent_v2", (CUcontext *context), (context))
CU_REQUIRED(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext context), (context))
CU_FUNCTION(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *context), (context))
CU_FUNCTION(cuCtxGetDevice, "cuCtxGetDevice", (CUdevice *device), (device))
CU_FUNCTION(cuCtxGetFlags, "cuCtxGetFlags", (unsigned int *flags), (flags))
CU_FUNCTION(cuCtxSynchronize, "cuCtxSynchronize", (void), ())
CU_FUNCTION(cuCtxSetLimit, "cuCtxSetLimit", (CUlimit limit, size_t value), (limit, value))
CU_FUNCTION(cuCtxGetLimit, "cuCtxGetLimit", (size_t *value, CUlimit limit), (value, limit))
CU_FUNCTION(cuCtxGetCacheConfig, "cuCtxGetCacheConfig", (CUfunc_cache *config), (config))
CU_FUNCTION(cuCtxSetCacheConfig, "cuCtxSetCacheConfig", (CUfunc_cache config), (config))
CU_FUNCTION(cuCtxGetSharedMemConfig, "cuCtxGetSharedMemConfig", (CUsharedconfig *config), (config))
CU_FUNCTION(cuCtxSetSharedMemConfig, "cuCtxSetSharedMemConfig", (CUsharedconfig config), (config))
CU_FUNCTION(cuCtxGetApiVersion, "cuCtxGetApiVersion", (CUcontext context, unsigned int *version), (context, version))
CU_FUNCTION(cuCtxGetStreamPriorityRange, "cuCtxGetStreamPriorityRange", (int *least, int *greatest), (least, greatest))
CU_FUNCTION(cuCtxResetPersistingL2Cache, "cuCtxResetPersistingL2Cache", (void), ())

/* Module management. */
CU_FUNCTION(cuModuleLoad, "cuModuleLoad", (CUmodule *module, const char *path), (module, path))
CU_FUNCTION(cuModuleLoadData, "cuModuleLoadData", (CUmodule *module, const void *image), (module, image))
CU_FUNCTION(cuModuleLoadDataEx, "cuModuleLoadDataEx", (CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values), (module, image, count, options, values))
CU_FUNCTION(cuModuleLoadFatBinary, "cuModuleLoadFatBinary", (CUmodule *module, const void *image), (module, image))
CU_FUNCTION(cuModuleUnload, "cuModuleUnload", (CUmodule module), (module))
CU_FUNCTION(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction *function, CUmodule module, const char *name), (function, module, name))
CU_FUNCTION(cuModuleGetGlobal, "cuModuleGetGlobal_v2", (CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name), (address, bytes, module, name))
CU_FUNCTION(cuModuleGetTexRef, "cuModuleGetTexRef", (CUtexref *reference, CUmodule module, const char *name), (reference, module, name))
CU_FUNCTION(cuModuleGetSurfRef, "cuModuleGetSurfRef", (CUsurfref *reference, CUmodule module, const char *name), (reference, module, name))
CU_FUNCTION(cuLinkCreate, "cuLinkCreate_v2", (unsigned int count, CUjit_option *options, void **values, CUlinkState *state), (count, options, values, state))
CU_FUNCTION(cuLinkAddData, "cuLinkAddData_v2", (CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name, unsigned int count, CUjit_option *options, void **values), (state, type, data, size, name, count, options, values))
CU_FUNCTION(cuLinkAddFile, "cuLinkAddFile_v2", (CUlinkState state, CUjitInputType type, const char *path, unsigned int count, CUjit_option *options, void **values), (state, type, path, count, options, values))
CU_FUNCTION(cuLinkComplete, "cuLinkComplete", (CUlinkState state, void **cubin, size_t *size), (state, cubin, size))
CU_FUNCTION(cuLinkDestroy, "cuLinkDestroy", (CUlinkState state), (state))

/* Memory management: allocations. */
CU_REQUIRED(cuMemGetInfo, "cuMemGetInfo_v2", (size_t *available, size_t *total), (available, total))
CU_REQUIRED(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr *address, size_t bytes), (address, bytes))
CU_FUNCTION(cuMemAllocPitch, "cuMemAllocPitch_v2", (CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned int element), (address, pitch, width, height, element))
CU_FUNCTION(cuMemAllocManaged, "cuMemAllocManaged", (CUdeviceptr *address, size_t bytes, unsigned int flags), (address, bytes, flags))
CU_REQUIRED(cuMemFree, "cuMemFree_v2", (CUdeviceptr address), (address))
CU_FUNCTION(cuMemFreeHost, "cuMemFreeHost", (void *host), (host))
CU_FUNCTION(cuMemGetAddressRange, "cuMemGetAddressRange_v2", (CUdeviceptr *base, size_t *size, CUdeviceptr address), (base, size, address))
CU_FUNCTION(cuMemHostRegister, "cuMemHostRegister_v2", (void *host, size_t bytes, unsigned int flags), (host, bytes, flags))
CU_FUNCTION(cuMemHostUnregister, "cuMemHostUnregister", (void *host), (host))
CU_FUNCTION(cuIpcGetMemHandle, "cuIpcGetMemHandle", (CUipcMemHandle *handle, CUdeviceptr address), (handle, address))
CU_FUNCTION(cuIpcOpenMemHandle, "cuIpcOpenMemHandle_v2", (CUdeviceptr *address, CUipcMemHandle handle, unsigned int flags), (address, handle, flags))
CU_FUNCTION(cuIpcCloseMemHandle, "cuIpcCloseMemHandle", (CUdeviceptr address), (address))

/* Memory management: copies. */
CU_FUNCTION(cuMemcpy, "cuMemcpy", (CUdeviceptr dst, CUdeviceptr src, size_t bytes), (dst, src, bytes))
CU_FUNCTION(cuMemcpyPeer, "cuMemcpyPeer", (CUdeviceptr dst, CUcontext dstContext, CUdeviceptr src, CUcontext srcContext, size_t bytes), (dst, dstContext, src, srcContext, bytes))
CU_FUNCTION(cuMemcpyHtoD, "cuMemcpyHtoD_v2", (CUdeviceptr dst, const void *src, size_t bytes), (dst, src, bytes))
CU_FUNCTION(cuMemcpyDtoH, "cuMemcpyDtoH_v2", (void *dst, CUdeviceptr src, size_t bytes), (dst, src, bytes))
CU_FUNCTION(cuMemcpyDtoD, "cuMemcpyDtoD_v2", (CUdeviceptr dst, CUdeviceptr src, size_t bytes), (dst, src, bytes))
CU_FUNCTION(cuMemcpyDtoA, "cuMemcpyDtoA_v2", (CUarray dst, size_t offset, CUdeviceptr src, size_t bytes), (dst, offset, src, bytes))
CU_FUNCTION(cuMemcpyAtoD, "cuMemcpyAtoD_v2", (CUdeviceptr dst, CUarray src, size_t offset, size_t bytes), (dst, src, offset, bytes))
CU_FUNCTION(cuMemcpyHtoA, "cuMemcpyHtoA_v2", (CUarray dst, size_t offset, const void *src, size_t bytes), (dst, offset, src, bytes))
CU_FUNCTION(cuMemcpyAtoH, "cuMemcpyAtoH_v2", (void *dst, CUarray src, size_t offset, size_t bytes), (dst, src, offset, bytes))
CU_FUNCTION(cuMemcpyAtoA, "cuMemcpyAtoA_v2", (CUarray dst, size_t dstOffset, CUarray src, size_t srcOffset, size_t bytes), (dst, dstOffset, src, srcOffset, bytes))
CU_FUNCTION(cuMemcpy2D, "cuMemcpy2D_v2", (const CUDA_MEMCPY2D *copy), (copy))
CU_FUNCTION(cuMemcpy2DUnaligned, "cuMemcpy2DUnaligned_v2", (const CUDA_MEMCPY2D *copy), (copy))
CU_FUNCTION(cuMemcpy3D, "cuMemcpy3D_v2", (const CUDA_MEMCPY3D *copy), (copy))
CU_FUNCTION(cuMemcpy3DPeer, "cuMemcpy3DPeer", (const CUDA_MEMCPY3D_PEER *copy), (copy))
CU_FUNCTION(cuMemcpyAsync, "cuMemcpyAsync", (CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream), (dst, src, bytes, stream))
CU_FUNCTION(cuMemcpyPeerAsync, "cuMemcpyPeerAsync", (CUdeviceptr dst, CUcontext dstContext, CUdeviceptr src, CUcontext srcContext, size_t bytes, CUstream stream), (dst, dstContext, src, srcContext, bytes, stream))
CU_REQUIRED(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr dst, const void *src, size_t bytes, CUstream stream), (dst, src, bytes, stream))
CU_REQUIRED(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *dst, CUdeviceptr src, size_t bytes, CUstream stream), (dst, src, bytes, stream))
CU_REQUIRED(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream), (dst, src, bytes, stream))
CU_FUNCTION(cuMemcpyHtoAAsync, "cuMemcpyHtoAAsync_v2", (CUarray dst, size_t offset, const void *src, size_t bytes, CUstream stream), (dst, offset, src, bytes, stream))
CU_FUNCTION(cuMemcpyAtoHAsync, "cuMemcpyAtoHAsync_v2", (void *dst, CUarray src, size_t offset, size_t bytes, CUstream stream), (dst, src, offset, bytes, stream))
CU_FUNCTION(cuMemcpy2DAsync, "cuMemcpy2DAsync_v2", (const CUDA_MEMCPY2D *copy, CUstream stream), (copy, stream))
CU_FUNCTION(cuMemcpy3DAsync, "cuMemcpy3DAsync_v2", (const CUDA_MEMCPY3D *copy, CUstream stream), (copy, stream))
CU_FUNCTION(cuMemcpy3DPeerAsync, "cuMemcpy3DPeerAsync", (const CUDA_MEMCPY3D_PEER *copy, CUstream stream), (copy, stream))

/* Batches: CUDA 12.8 has the form with failed, CUDA 13 has that and one without. Two
 * entries, since their parameters differ; driver.c takes the newer where it is. */
CU_FUNCTION(cuMemcpyBatchAsync, "cuMemcpyBatchAsync", (CUdeviceptr *dst, CUdeviceptr *src, size_t *sizes, size_t count, CUmemcpyAttributes *attributes, size_t *indexes, size_t attributeCount, size_t *failed, CUstream stream), (dst, src, sizes, count, attributes, indexes, attributeCount, failed, stream))
CU_FUNCTION(cuMemcpyBatchAsync_v2, "cuMemcpyBatchAsync_v2", (const CUdeviceptr *dst, const CUdeviceptr *src, const size_t *sizes, size_t count, CUmemcpyAttributes *attributes, size_t *indexes, size_t attributeCount, CUstream stream), (dst, src, sizes, count, attributes, indexes, attributeCount, stream))

/* Memory management: filling. Those with a stream never had other sizes. */
CU_FUNCTION(cuMemsetD8, "cuMemsetD8_v2", (CUdeviceptr dst, unsigned char value, size_t n), (dst, value, n))
CU_FUNCTION(cuMemsetD16, "cuMemsetD16_v2", (CUdeviceptr dst, unsigned short value, size_t n), (dst, value, n))
CU_FUNCTION(cuMemsetD32, "cuMemsetD32_v2", (CUdeviceptr dst, unsigned int value, size_t n), (dst, value, n))
CU_FUNCTION(cuMemsetD2D8, "cuMemsetD2D8_v2", (CUdeviceptr dst, size_t pitch, unsigned char value, size_t width, size_t height), (dst, pitch, value, width, height))
CU_FUNCTION(cuMemsetD2D16, "cuMemsetD2D16_v2", (CUdeviceptr dst, size_t pitch, unsigned short value, size_t width, size_t height), (dst, pitch, value, width, height))
CU_FUNCTION(cuMemsetD2D32, "cuMemsetD2D32_v2", (CUdeviceptr dst, size_t pitch, unsigned int value, size_t width, size_t height), (dst, pitch, value, width, height))
CU_FUNCTION(cuMemsetD8Async, "cuMemsetD8Async", (CUdeviceptr dst, unsigned char value, size_t n, CUstream stream), (dst, value, n, stream))
CU_FUNCTION(cuMemsetD16Async, "cuMemsetD16Async", (CUdeviceptr dst, unsigned short value, size_t n, CUstream stream), (dst, value, n, stream))
CU_FUNCTION(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr dst, unsigned int value, size_t n, CUstream stream), (dst, value, n, stream))
CU_FUNCTION(cuMemsetD2D8Async, "cuMemsetD2D8Async", (CUdeviceptr dst, size_t pitch, unsigned char value, size_t width, size_t height, CUstream stream), (dst, pitch, value, width, height, stream))
CU_FUNCTION(cuMemsetD2D16Async, "cuMemsetD2D16Async", (CUdeviceptr dst, size_t pitch, unsigned short value, size_t width, size_t height, CUstream stream), (dst, pitch, value, width, height, stream))
CU_FUNCTION(cuMemsetD2D32Async, "cuMemsetD2D32Async", (CUdeviceptr dst, size_t pitch, unsigned int value, size_t width, size_t height, CUstream stream), (dst, pitch, value, width, height, stream))

/* Memory management: arrays. */
CU_FUNCTION(cuArrayCreate, "cuArrayCreate_v2", (CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor), (array, descriptor))
CU_FUNCTION(cuArrayGetDescriptor, "cuArrayGetDescriptor_v2", (CUDA_ARRAY_DESCRIPTOR *descriptor, CUarray array), (descriptor, array))
CU_FUNCTION(cuArrayDestroy, "cuArrayDestroy", (CUarray array), (array))
CU_FUNCTION(cuArray3DCreate, "cuArray3DCreate_v2", (CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor), (array, descriptor))
CU_FUNCTION(cuArray3DGetDescriptor, "cuArray3DGetDescriptor_v2", (CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUarray array), (descriptor, array))

/* Unified addressing. */
CU_FUNCTION(cuMemAdvise, "cuMemAdvise", (CUdeviceptr address, size_t count, CUmem_advise advice, CUdevice device), (address, count, advice, device))
CU_FUNCTION(cuMemPrefetchAsync, "cuMemPrefetchAsync", (CUdeviceptr address, size_t count, CUdevice device, CUstream stream), (address, count, device, stream))
CU_FUNCTION(cuPointerGetAttribute, "cuPointerGetAttribute", (void *value, CUpointer_attribute attribute, CUdeviceptr address), (value, attribute, address))
CU_FUNCTION(cuPointerSetAttribute, "cuPointerSetAttribute", (const void *value, CUpointer_attribute attribute, CUdeviceptr address), (value, attribute, address))

/* Stream management; stream memory operations. */
CU_REQUIRED(cuStreamCreate, "cuStreamCreate", (CUstream *stream, unsigned int flags), (stream, flags))
CU_FUNCTION(cuStreamCreateWithPriority, "cuStreamCreateWithPriority", (CUstream *stream, unsigned int flags, int priority), (stream, flags, priority))
CU_FUNCTION(cuStreamGetPriority, "cuStreamGetPriority", (CUstream stream, int *priority), (stream, priority))
CU_FUNCTION(cuStreamGetFlags, "cuStreamGetFlags", (CUstream stream, unsigned int *flags), (stream, flags))
CU_REQUIRED(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned int flags), (stream, event, flags))
CU_FUNCTION(cuStreamAttachMemAsync, "cuStreamAttachMemAsync", (CUstream stream, CUdeviceptr address, size_t length, unsigned int flags), (stream, address, length, flags))
CU_FUNCTION(cuStreamQuery, "cuStreamQuery", (CUstream stream), (stream))
CU_REQUIRED(cuStreamSynchronize, "cuStreamSynchronize", (CUstream stream), (stream))
CU_REQUIRED(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream stream), (stream))
CU_FUNCTION(cuStreamWaitValue32, "cuStreamWaitValue32_v2 cuStreamWaitValue32", (CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags), (stream, address, value, flags))
CU_FUNCTION(cuStreamWriteValue32, "cuStreamWriteValue32_v2 cuStreamWriteValue32", (CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned int flags), (stream, address, value, flags))

/* Event management. */
CU_REQUIRED(cuEventCreate, "cuEventCreate", (CUevent *event, unsigned int flags), (event, flags))
CU_REQUIRED(cuEventRecord, "cuEventRecord", (CUevent event, CUstream stream), (event, stream))
CU_REQUIRED(cuEventQuery, "cuEventQuery", (CUevent event), (event))
CU_REQUIRED(cuEventSynchronize, "cuEventSynchronize", (CUevent event), (event))
CU_REQUIRED(cuEventDestroy, "cuEventDestroy_v2", (CUevent event), (event))
CU_FUNCTION(cuEventElapsedTime, "cuEventElapsedTime_v2 cuEventElapsedTime", (float *milliseconds, CUevent start, CUevent end), (milliseconds, start, end))

/* Execution control; occupancy. */
CU_FUNCTION(cuFuncGetAttribute, "cuFuncGetAttribute", (int *value, CUfunction_attribute attribute, CUfunction function), (value, attribute, function))
CU_FUNCTION(cuFuncSetCacheConfig, "cuFuncSetCacheConfig", (CUfunction function, CUfunc_cache config), (function, config))
CU_FUNCTION(cuFuncSetSharedMemConfig, "cuFuncSetSharedMemConfig", (CUfunction function, CUsharedconfig config), (function, config))
CU_FUNCTION(cuLaunchKernel, "cuLaunchKernel", (CUfunction function, unsigned int gridX, unsigned int gridY, unsigned int gridZ, unsigned int blockX, unsigned int blockY, unsigned int blockZ, unsigned int shared, CUstream stream, void **parameters, void **extra), (function, gridX, gridY, gridZ, blockX, blockY, blockZ, shared, stream, parameters, extra))
CU_FUNCTION(cuOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor", (int *blocks, CUfunction function, int blockSize, size_t shared), (blocks, function, blockSize, shared))
CU_FUNCTION(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", (int *blocks, CUfunction function, int blockSize, size_t shared, unsigned int flags), (blocks, function, blockSize, shared, flags))

/* Graph management. */
CU_FUNCTION(cuGraphCreate, "cuGraphCreate", (CUgraph *graph, unsigned int flags), (graph, flags))
CU_FUNCTION(cuGraphDestroy, "cuGraphDestroy", (CUgraph graph), (graph))
CU_FUNCTION(cuGraphClone, "cuGraphClone", (CUgraph *clone, CUgraph graph), (clone, graph))
CU_FUNCTION(cuGraphAddDependencies, "cuGraphAddDependencies", (CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count), (graph, from, to, count))
CU_FUNCTION(cuGraphGetEdges, "cuGraphGetEdges", (CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count), (graph, from, to, count))
CU_FUNCTION(cuGraphAddEmptyNode, "cuGraphAddEmptyNode", (CUgraphNode *node, CUgraph graph, const CUgraphNode *needs, size_t count), (node, graph, needs, count))
CU_FUNCTION(cuGraphAddHostNode, "cuGraphAddHostNode", (CUgraphNode *node, CUgraph graph, const CUgraphNode *needs, size_t count, const CUDA_HOST_NODE_PARAMS *parameters), (node, graph, needs, count, parameters))
CU_FUNCTION(cuGraphAddKernelNode, "cuGraphAddKernelNode", (CUgraphNode *node, CUgraph graph, const CUgraphNode *needs, size_t count, const CUDA_KERNEL_NODE_PARAMS *parameters), (node, graph, needs, count, parameters))
CU_FUNCTION(cuGraphAddMemcpyNode, "cuGraphAddMemcpyNode", (CUgraphNode *node, CUgraph graph, const CUgraphNode *needs, size_t count, const CUDA_MEMCPY3D *copy, CUcontext context), (node, graph, needs, count, copy, context))
CU_FUNCTION(cuGraphAddMemsetNode, "cuGraphAddMemsetNode", (CUgraphNode *node, CUgraph graph, const CUgraphNode *needs, size_t count, const CUDA_MEMSET_NODE_PARAMS *parameters, CUcontext context), (node, graph, needs, count, parameters, context))
CU_FUNCTION(cuGraphAddChildGraphNode, "cuGraphAddChildGraphNode", (CUgraphNode *node, CUgraph graph, const CUgraphNode *needs, size_t count, CUgraph child), (node, graph, needs, count, child))
CU_FUNCTION(cuGraphDestroyNode, "cuGraphDestroyNode", (CUgraphNode node), (node))
CU_FUNCTION(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec graph), (graph))

/* Peer context memory access. */
CU_FUNCTION(cuDeviceCanAccessPeer, "cuDeviceCanAccessPeer", (int *can, CUdevice device, CUdevice peer), (can, device, peer))
CU_FUNCTION(cuDeviceGetP2PAttribute, "cuDeviceGetP2PAttribute", (int *value, CUdevice_P2PAttribute attribute, CUdevice src, CUdevice dst), (value, attribute, src, dst))
CU_FUNCTION(cuCtxEnablePeerAccess, "cuCtxEnablePeerAccess", (CUcontext peer, unsigned int flags), (peer, flags))
CU_FUNCTION(cuCtxDisablePeerAccess, "cuCtxDisablePeerAccess", (CUcontext peer), (peer))

/* Texture reference management; surface reference management. */
CU_FUNCTION(cuTexRefSetArray, "cuTexRefSetArray", (CUtexref reference, CUarray array, unsigned int flags), (reference, array, flags))
CU_FUNCTION(cuTexRefSetAddress, "cuTexRefSetAddress_v2", (size_t *offset, CUtexref reference, CUdeviceptr address, size_t bytes), (offset, reference, address, bytes))
CU_FUNCTION(cuTexRefSetAddress2D, "cuTexRefSetAddress2D_v3", (CUtexref reference, const CUDA_ARRAY_DESCRIPTOR *descriptor, CUdeviceptr address, size_t pitch), (reference, descriptor, address, pitch))
CU_FUNCTION(cuTexRefSetFormat, "cuTexRefSetFormat", (CUtexref reference, CUarray_format format, int components), (reference, format, components))
CU_FUNCTION(cuTexRefSetAddressMode, "cuTexRefSetAddressMode", (CUtexref reference, int dimension, CUaddress_mode mode), (reference, dimension, mode))
CU_FUNCTION(cuTexRefSetFilterMode, "cuTexRefSetFilterMode", (CUtexref reference, CUfilter_mode mode), (reference, mode))
CU_FUNCTION(cuTexRefSetMipmapFilterMode, "cuTexRefSetMipmapFilterMode", (CUtexref reference, CUfilter_mode mode), (reference, mode))
CU_FUNCTION(cuTexRefSetMipmapLevelBias, "cuTexRefSetMipmapLevelBias", (CUtexref reference, float bias), (reference, bias))
CU_FUNCTION(cuTexRefSetMipmapLevelClamp, "cuTexRefSetMipmapLevelClamp", (CUtexref reference, float lowest, float highest), (reference, lowest, highest))
CU_FUNCTION(cuTexRefSetMaxAnisotropy, "cuTexRefSetMaxAnisotropy", (CUtexref reference, unsigned int most), (reference, most))
CU_FUNCTION(cuTexRefSetBorderColor, "cuTexRefSetBorderColor", (CUtexref reference, float *color), (reference, color))
CU_FUNCTION(cuTexRefSetFlags, "cuTexRefSetFlags", (CUtexref reference, unsigned int flags), (reference, flags))
CU_FUNCTION(cuTexRefGetAddress, "cuTexRefGetAddress_v2", (CUdeviceptr *address, CUtexref reference), (address, reference))
CU_FUNCTION(cuTexRefGetArray, "cuTexRefGetArray", (CUarray *array, CUtexref reference), (array, reference))
CU_FUNCTION(cuTexRefGetAddressMode, "cuTexRefGetAddressMode", (CUaddress_mode *mode, CUtexref reference, int dimension), (mode, reference, dimension))
CU_FUNCTION(cuTexRefGetFilterMode, "cuTexRefGetFilterMode", (CUfilter_mode *mode, CUtexref reference), (mode, reference))
CU_FUNCTION(cuTexRefGetFormat, "cuTexRefGetFormat", (CUarray_format *format, int *channels, CUtexref reference), (format, channels, reference))
CU_FUNCTION(cuTexRefGetMaxAnisotropy, "cuTexRefGetMaxAnisotropy", (int *most, CUtexref reference), (most, reference))
CU_FUNCTION(cuTexRefGetBorderColor, "cuTexRefGetBorderColor", (float *color, CUtexref reference), (color, reference))
CU_FUNCTION(cuTexRefGetFlags, "cuTexRefGetFlags", (unsigned int *flags, CUtexref reference), (flags, reference))
CU_FUNCTION(cuSurfRefSetArray, "cuSurfRefSetArray", (CUsurfref reference, CUarray array, unsigned int flags), (reference, array, flags))
CU_FUNCTION(cuSurfRefGetArray, "cuSurfRefGetArray", (CUarray *array, CUsurfref reference), (array, reference))
