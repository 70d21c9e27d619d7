"""Quality of recommendation: the model beside everything that can be installed, all asked the same and judged the same."""
