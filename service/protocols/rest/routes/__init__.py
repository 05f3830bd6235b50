"""The routes of the FastAPI app, one file each: its `make_router(context) -> APIRouter` is found here."""
